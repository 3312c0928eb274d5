"""Decoders: from a pyramid of fused features to class scores.

Every decoder is built as `Decoder(channels, out_channels, **options)` with the channels of the pyramid's stages, fine
to coarse, and maps a list of NHWC grids (B, H_i, W_i, C_i) to (B, out_channels, H_1, W_1), the finest stage's grid.
"""
