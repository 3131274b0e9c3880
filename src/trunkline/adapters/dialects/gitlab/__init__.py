"""`.gitlab-ci.yml` as GitLab documents it. Reading order: keywords, mistakes, merging, parts, jobs, dialect."""
