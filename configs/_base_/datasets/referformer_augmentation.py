# ReferFormer's augmentation of training clips: colours change for each frame, flips and sizes for the clip. Half of the clips are
# cropped before they get their size.
referformer_augmentation = [
    dict(type='ForEachFrame', transforms=[dict(type='mmdet.RandomFlip', prob=0.5)]),
    dict(type='ForEachFrame', share_random_params=False, transforms=[dict(type='PhotometricDistort')]),
    dict(type='ForEachFrame', transforms=[
        dict(type='RandomClipChoice', transforms=[
            [],
            [
                dict(type='RandomShortSideResize', sides=[400, 500, 600]),
                dict(type='RandomClipCrop', min_size=384, max_size=600),
            ],
        ]),
        dict(type='RandomShortSideResize', sides=[288, 320, 352, 392, 416, 448, 480, 512], longest=640),
    ]),
]
