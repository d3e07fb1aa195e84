"""AMD GPU targets."""
