"""Cases: systems that somebody runs, measured part by part (workload/case_profile.py)."""
