"""Makes and checks data sets, before anything is trained: nothing that training or inference imports may import this package.

``moving_shapes`` generates MovingShapes, ``twins`` small copies of the layouts of the other data sets; ``own_videos`` and
``ref_davis17`` convert; ``root_checks`` lists what is wrong with a data root. The tools of ``tools/dataset_converters`` parse
their arguments and call a function of it.
"""
