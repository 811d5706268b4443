"""The dashboard: pages that answer one question each. It only reads.

`app` is what Streamlit runs; `site` names the pages and their addresses; `pages` show what
`sources`, the only door to a workspace, know; `charts` are pure.
"""
