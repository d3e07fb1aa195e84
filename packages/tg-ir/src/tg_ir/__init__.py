"""The vocabulary of the stack: dtypes, symbolic integers, tensor graph, kernel IR, program, protocols."""
