"""Image files to pixels and back: the only code that knows Pillow, and the only one that need distrust image files.

kind      which format some bytes are
parts     what a file says besides its pixels; png, jpeg, webp, gif, tiff, avif, bmp take a file apart into them
reading   image file -> upright sRGB pixels and alpha
colour    ICC profiles and colour signals -> sRGB; signal and tone hold the curves
alpha     transparency of every form, and the alpha section of a .cdc file
exif      orientation, and the metadata that may stay
writing   pixels and alpha -> image file; preview makes small ones
"""
