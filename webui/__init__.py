"""The page: drop photos, watch the labels arrive; and its API.

The output bucket is the truth and the response queue only wakes (:mod:`webui.live`), so that any number of these
processes can run and each may be killed at any time. Nothing here decodes a picture or loads a model.
"""
