"""Where pictures come from: `cifar` is found or fetched, `shapes` are drawn, `folders` and `pictures` read your own.

Nothing here knows of the lesson: `data.load` and `data.from_folder` make an `ImageSet` of what these give.
"""
