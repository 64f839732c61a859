"""What is written: profiles, plans of writes, recorded traces, fio jobs, and what the link is asked to be."""
