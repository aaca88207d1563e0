"""Floor 5: the composition root; nobody imports it."""

import warnings

# The embedded PostgreSQL's wheel looks for a runtime folder while it is imported; without one it uses a temporary
# folder of this user, which serves us as well and is nothing to trouble the operator with.
warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
