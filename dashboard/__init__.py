"""The dashboard: pages that answer one question each. It only reads.

`entry.app` is what Streamlit runs, `gate` its log-in; `site` names the pages and their addresses;
`pages` show what `sources`, the only door to a workspace, know; `charts` are pure. Models answer in
a process of their own, which `answering` keeps.
"""
