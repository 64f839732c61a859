"""The commands, one file each: words that were understood become one call. They are loaded when they are typed."""
