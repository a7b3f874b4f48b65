//! Training: the loop, its checkpoints, its logs, and the anchors its loss is held against.
