"""Gates, sites and the lockstep network (InterroGate section 3)."""
