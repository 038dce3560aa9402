"""Trust, measured: how the product deals with unfamiliar pictures and changed cameras; ideas for chosen corrections and
for promises on groups."""
