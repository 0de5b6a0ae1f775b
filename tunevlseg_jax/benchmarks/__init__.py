"""Speed of programs on this machine, and compile-time estimates for absent TPUs."""
