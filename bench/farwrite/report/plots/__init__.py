"""The charts of the HTML report, each a file of its own: plain data for Plotly, made of a recording and its analysis."""
