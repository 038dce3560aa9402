"""Ideas for trust that are measured and not yet in the product: unfamiliar pictures, changed cameras, chosen corrections,
promises on groups."""
