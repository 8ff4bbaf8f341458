"""The Compare widget: two label maps, or two folders of them."""
