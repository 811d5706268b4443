"""What Streamlit runs. It lies apart from `pages`, which Streamlit would serve past it."""
