"""The options of `patchlight explain`: which images of a run, which maps are made, and how they are drawn."""

from __future__ import annotations

from patchlight.cli.words import option, path
from patchlight.config import DEFAULT_METHOD, SPLIT_NAMES

SUBSET = "subset_test are those of data.subset_test_per_class"
OF_CLASS = (
    "images of this class, by name or index, and their mean map; again for more, all is every class that has some"
)
AT_INDEX = "the images with these indices in the split, counted from 0"
USUAL = "default: test, or val of a run with eval.test = false"
HOW_MANY = "how many images of the run, 200 at most (default: 12, or 4 of each --class; with --faithfulness 500)"
OF_A_SPLIT = (  # which images of a run are explained
    option("--class", dest="classes", action="append", metavar="CLASS", help=OF_CLASS),
    option("--index", dest="indices", action="extend", nargs="+", type=int, metavar="N", help=AT_INDEX),
    option("--split", choices=SPLIT_NAMES, help=f"whose images are taken; {SUBSET} ({USUAL})"),
    option("--count", type=int, metavar="N", help=HOW_MANY),
)

MAPS = (
    option(
        "--method",
        metavar="NAME[:OPTION=VALUE,...]",
        action="append",
        help="one of those below, as in rollout:heads=max,discard=0.9, or all; again for several (default: "
        f"{DEFAULT_METHOD}, or gradcam where there is no attention to see; with --faithfulness: all)",
    ),
    option(
        "--target",
        metavar="CLASS",
        help="the class to explain: predicted (default), true (for images of the run), or a class's name or index",
    ),
    option(
        "--versus",
        metavar="CLASS",
        help="the maps are of the target and not of this class; 'second' is the likeliest other class",
    ),
    option(
        "--like",
        metavar="IMAGE",
        type=path,
        help="the maps are of what makes an image like this one, by the features before the head",
    ),
    option(
        "--percentile",
        metavar="P",
        type=float,
        help="from 50 to 100: values beyond this percentile have the colour of the greatest (default: 100)",
    ),
    option(
        "--masks",
        metavar="DIR",
        type=path,
        help="a folder of masks of the image files (photo.png or photo_mask.png): how far the maps lie inside",
    ),
    option(
        "--tolerance",
        metavar="PIXELS",
        type=float,
        help="how far outside of its mask a map's greatest value may lie, in pixels of the model's input, with --masks "
        "(default: 0)",
    ),
    option(
        "--layers",
        metavar="N,...",
        help="the layers whose heads are drawn, counted from 1, as in 1,6 (default: the last)",
    ),
    option(
        "--mass",
        metavar="SHARE",
        type=float,
        help="the share of a head's attention that its mask holds (default: 0.6)",
    ),
    option(
        "--token",
        metavar="TOKEN",
        help="whose path through the layers is drawn: cls, pooled (default), or a patch as row,column from 0,0",
    ),
    option(
        "--pair",
        metavar="QUERY:KEY",
        help="two tokens, as 3,4:5,6 or cls:3,4: what the first reads from the second, in every layer and head",
    ),
    option(
        "--faithfulness",
        action="store_true",
        help="compare the methods on the run's test images or those of --split, write faithfulness.json and build the "
        "report again",
    ),
    option(
        "--ways",
        metavar="NAME,...",
        help="with --faithfulness, how patches are taken away: mean, black, blur, road, tokens (default: all)",
    ),
)
