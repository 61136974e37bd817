"""What all HTML pages share: escaped elements, one style sheet, and a document that loads nothing."""
