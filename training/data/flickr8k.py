"""Flickr8k (Hodosh, Young and Hockenmaier, JAIR 47, 2013) in whichever of its forms is there.

Looked for in this order:

    captions.csv                  images/, SPLIT.txt                       (``captions_csv.py``)
    Flickr8k.token.txt            Flickr_8k.trainImages.txt, devImages, testImages; maybe below
                                  Flickr8k_text/
    dataset_flickr8k.json         Karpathy's captions and splits           (``karpathy.py``)
    captions.txt                  Kaggle's ``image,caption``; the official lists beside it, if any

Pictures lie in Flicker8k_Dataset/ (spelt so upstream), Flickr8k_Dataset/, Images/ or images/.
"""

from __future__ import annotations

from functools import partial

from edgecap.training.data import flickr
from edgecap.training.data.tables import read_image_caption_csv, read_token_file

LAYOUT = flickr.Layout(
    tables=(
        ("Flickr8k.token.txt", read_token_file),
        ("Flickr8k_text/Flickr8k.token.txt", read_token_file),
        ("dataset_flickr8k.json", None),
        ("captions.txt", read_image_caption_csv),
    ),
    lists={
        "train": ("Flickr_8k.trainImages.txt", "Flickr8k_text/Flickr_8k.trainImages.txt"),
        "val": ("Flickr_8k.devImages.txt", "Flickr8k_text/Flickr_8k.devImages.txt"),
        "test": ("Flickr_8k.testImages.txt", "Flickr8k_text/Flickr_8k.testImages.txt"),
    },
    pictures=(
        "Flicker8k_Dataset",
        "Flickr8k_Dataset/Flicker8k_Dataset",
        "Flickr8k_Dataset",
        "Images",
        "images",
    ),
)

read = partial(flickr.read, LAYOUT)
splits = partial(flickr.splits, LAYOUT)
