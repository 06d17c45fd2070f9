"""What nbval's kernels inherit, whatever the shell had set; here, so that `pytest --nbval ONE.ipynb` loads it, too."""

import os

os.environ["COURSE_PROFILE"] = "quick"
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask the network on import
os.environ["COURSE_DEVICE"] = "cpu"  # what is compared to the last bit was made on a processor
os.environ["TQDM_DISABLE"] = "1"  # where an epoch takes long, a bar would be output that is not stored
