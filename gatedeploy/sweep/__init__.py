"""Many trainings of one recipe as one study, shared by several workers: the accuracy that each cost buys."""
