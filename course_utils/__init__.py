"""The small package behind *Training on a Budget*: data, transforms, networks, schedules and the training loop.

Import its modules, not this file: `from course_utils import data, models, training`.
"""
