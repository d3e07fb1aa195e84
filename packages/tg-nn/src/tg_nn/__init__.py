"""Models and training on tg_frontend."""
