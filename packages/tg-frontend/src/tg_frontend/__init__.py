"""Write and differentiate tensor programs."""
