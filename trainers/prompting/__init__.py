"""CLIP under learnable prompts: frozen towers that take prompts as arguments. Knows nothing of Dassl."""
import warnings

warnings.filterwarnings("ignore", message="pkg_resources is deprecated")  # that clip imports it is no news to whoever trains
