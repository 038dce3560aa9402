"""What predict.py and the page of demo_app.py are made of."""

from trainers.common import environment as environment
