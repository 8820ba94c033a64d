"""What masks, reconstructions and detections look like."""
