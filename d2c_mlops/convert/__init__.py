"""From any notebook to production: read it, trace its data, say what would break, mend what can be mended safely."""
