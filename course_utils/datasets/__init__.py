"""Where pictures come from: `cifar` finds, fetches and verifies it; `shapes` draws its own; `folders` and `pictures` read yours.

Nothing here knows of the lesson: `data.load` and `data.from_folder` make an `ImageSet` of what these give.
"""
