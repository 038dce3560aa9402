"""The page of demo_app.py."""
