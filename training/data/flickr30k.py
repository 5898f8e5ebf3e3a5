"""Flickr30k (Young et al., TACL 2, 2014) in whichever of its forms is there.

Looked for in this order:

    captions.csv                  images/, SPLIT.txt                       (``captions_csv.py``)
    dataset_flickr30k.json        Karpathy's captions and splits           (``karpathy.py``)
    results_20130124.token        ``name.jpg#0<TAB>caption``
    results.csv                   Kaggle's ``image_name| comment_number| comment``
    captions.txt                  Kaggle's ``image,caption``

The last three have no splits of their own: train.txt, val.txt and test.txt of Flickr30k Entities
beside them give them; without those the only split is "all". Pictures lie in flickr30k-images/,
flickr30k_images/, Images/ or images/.
"""

from __future__ import annotations

from functools import partial

from edgecap.training.data import flickr
from edgecap.training.data.tables import read_image_caption_csv, read_pipe_table, read_token_file

LAYOUT = flickr.Layout(
    tables=(
        ("dataset_flickr30k.json", None),
        ("results_20130124.token", read_token_file),
        ("flickr30k/results_20130124.token", read_token_file),
        ("results.csv", read_pipe_table),
        ("flickr30k_images/results.csv", read_pipe_table),
        ("captions.txt", read_image_caption_csv),
    ),
    lists={split: (f"{split}.txt",) for split in ("train", "val", "test")},
    pictures=(
        "flickr30k-images",
        "flickr30k_images/flickr30k_images",
        "flickr30k_images",
        "Images",
        "images",
    ),
)

read = partial(flickr.read, LAYOUT)
splits = partial(flickr.splits, LAYOUT)
