"""The page of demo_app.py: what it says, and how it looks."""
