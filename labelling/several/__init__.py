"""Several labels per picture: each label is a yes-or-no question of its own."""
