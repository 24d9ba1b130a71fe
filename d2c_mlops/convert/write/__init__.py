"""From a plan to a literate notebook, its module and its model."""
