"""The customization tasks, one a file; `snf_image_helper.task` says what a task is."""
