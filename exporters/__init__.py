"""Writers of the formats that leave the program, and the bundle that holds them."""
