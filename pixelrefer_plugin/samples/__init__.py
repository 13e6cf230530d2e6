"""Pictures that ship: streets, kitchens and a clip, drawn by code, so that commands of the documentation can be tried.

Each object is drawn as one, so that its mask and box are exact. Knows no model.
"""
