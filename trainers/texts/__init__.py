"""What CLIP reads of classes: names, hand-crafted prompts, descriptions."""
