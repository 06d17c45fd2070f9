"""What all tests share: the quick profile, and figures without a window."""

import os

import matplotlib

# The kernels in which nbval runs the notebooks inherit this, whatever the shell had set.
os.environ["COURSE_PROFILE"] = "quick"

# Not by MPLBACKEND: the kernels would inherit that too, and their figures would be lost.
matplotlib.use("Agg")
