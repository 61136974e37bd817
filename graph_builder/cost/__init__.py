"""What a build will take, from measured ceilings of the machine. Begin with plan.py; ceilings.py measures."""
