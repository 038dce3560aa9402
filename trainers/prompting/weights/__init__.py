"""From a name or a file to a state dict: OpenAI's, OpenCLIP's, our tiny.pt."""
