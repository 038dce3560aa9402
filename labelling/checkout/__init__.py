"""Parts of a checkout beyond the installed package: one's own images in protocols, and a report after training."""
