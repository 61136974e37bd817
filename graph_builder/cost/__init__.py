"""Predict the time, memory and bytes of a graph build from measured rates of the machine, called ceilings.

May import the files and stages of graph_builder, kernels, configs and contracts. Files, and what to open them for:

    plan.py             open first: the prediction of a whole build, and the legend of all formulas
    stages.py           the formulas of every stage except the neighbour search
    neighbor_search.py  the formulas of the neighbour search
    request.py          the inputs of a prediction, and the result for a stage
    ceilings.py         measures the rates
    plan_tables.py      prints a prediction, and compares it with a finished build
"""
