module example.com/hubbub

go 1.26
