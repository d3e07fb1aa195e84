"""The machine IR: loops, addresses and lanes, still without instructions or registers of any target."""
