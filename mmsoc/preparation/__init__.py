"""Makes and checks data sets before training; nothing that training or inference imports may import this package.

``moving_shapes`` generates MovingShapes, ``twins`` small data sets in the layouts of the others; ``own_videos`` and
``ref_davis17`` convert; ``root_checks`` lists the faults of a data root. The tools in ``tools/dataset_converters``
parse their arguments and call this package.
"""
