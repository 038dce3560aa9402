"""What predict.py and the page of demo_app.py are made of."""
